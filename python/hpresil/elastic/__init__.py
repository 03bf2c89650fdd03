"""How work is spread over a group whose size changes. PURE: no torch, no sockets, no clock."""
