"""The formats changes arrive in: a module each, which knows its format and nothing else."""
