"""The suite's version: the only place it is written by hand, by `make release`.

Between two releases it is that of the last one; an image's label says which commit it is.
"""

VERSION = "0.2.0"
