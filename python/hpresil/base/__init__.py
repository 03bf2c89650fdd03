"""What every layer stands on: errors, settings, time and fault points. Standard library and msgspec only."""
