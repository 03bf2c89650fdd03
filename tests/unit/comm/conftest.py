import pytest

from rank_pool import RankPool


@pytest.fixture(scope="session")
def pools():
    kept = [RankPool()]
    yield kept
    kept[0].close()


@pytest.fixture
def pool(pools, request):
    """Processes to play ranks; new ones after a test that failed and may have left them anywhere."""
    failed_before = request.session.testsfailed
    yield pools[0]
    if request.session.testsfailed > failed_before:
        pools[0].close()
        pools[0] = RankPool()
