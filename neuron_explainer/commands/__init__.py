"""What the command line can do: one short function a command."""
