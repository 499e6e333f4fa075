"""What a message means and whom it concerns: pure, without I/O, clock or protobuf."""
