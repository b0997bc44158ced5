"""Whatever touches a disk or the hub."""
