"""The command `hpresil`: one file a verb, each with `add_parser(subparsers)` and `main(args) -> int`."""
