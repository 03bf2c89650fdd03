import pytest

from rank_pool import RankPool


@pytest.fixture(scope="session")
def pool():
    ranks = RankPool()
    yield ranks
    ranks.close()
