"""Delivers events and invalidations after the commit that wrote them."""
