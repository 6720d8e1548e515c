"""The viewer: what a workspace holds, as pages in a browser. It reads all and writes nothing."""
