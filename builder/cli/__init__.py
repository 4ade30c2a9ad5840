"""The commands that make shards, and the commands that exchange shards with other tools."""
