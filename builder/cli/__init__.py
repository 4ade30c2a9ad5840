"""The commands that make shards, and those that exchange them with other tools."""
