"""Whatever touches a disk or the hub: files that appear whole, records, YAML, saved models, hub ids."""
