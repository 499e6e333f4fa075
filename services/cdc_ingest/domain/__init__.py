"""What a message means and which people it concerns: pure, without I/O, clock or protobuf."""
