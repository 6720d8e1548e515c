"""Published formats of other projects, in and out."""
