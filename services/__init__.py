"""The services of the suite; present so that ``services/queue`` never shadows the stdlib's."""
