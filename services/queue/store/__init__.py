"""All SQL of the queue, one function per statement; the caller opens the transaction."""
