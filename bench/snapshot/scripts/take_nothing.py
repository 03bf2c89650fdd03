"""No snapshots: how much two blocks of the same steps differ by themselves."""

from __future__ import annotations

import trainer

if __name__ == "__main__":
    trainer.main(lambda *_: trainer.Method())
