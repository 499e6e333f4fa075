"""How facts, rules and the passing of time place people."""
