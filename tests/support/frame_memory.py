"""A memory file to put a frame into and to harm it in."""

from hpresil import native


class Memory:
    """A memory file with a writable mapping for the test to look into."""

    def __init__(self, nbytes):
        self.fd = native.memfd("test-frame", nbytes)
        self.mapping = native.Mapping(self.fd, nbytes)

    def bytes_at(self, start, length):
        with memoryview(self.mapping) as memory:
            return bytes(memory[start : start + length])

    def put(self, start, data):
        with memoryview(self.mapping) as memory:
            memory[start : start + len(data)] = data

    def flip(self, position, bit=0):
        self.put(position, bytes([self.bytes_at(position, 1)[0] ^ 1 << bit]))
