"""What the image starts, and how it is asked whether it is well, on this machine."""

import signal
import subprocess
import sys

from tests.config.dockerfile import ROOT, read
from tests.e2e.conftest import MakeHub
from tests.e2e.harness.process import TaskHubProcess


def healthy(hub: TaskHubProcess) -> bool:
    """What the image's HEALTHCHECK says."""
    (python, *arguments) = read()[-1].last("HEALTHCHECK").words
    assert python == "python"
    environment = hub.environment | {"TASKHUB_PORT": str(hub.port)}
    return subprocess.run([sys.executable, *arguments], env=environment, stderr=subprocess.DEVNULL).returncode == 0


async def test_the_image_is_healthy_while_it_serves_and_no_longer(make_hub: MakeHub) -> None:
    settings = {
        "TASKHUB_CONFIG": str(ROOT / "config/production.toml"),
        "TASKHUB_API_KEY": "k" * 32,
        "TASKHUB_ALLOWED_HOSTS": "taskhub.example.org",
        "TASKHUB_DRAIN_S": "2",
        # Which leads nowhere, and is for requests that leave the machine.
        "http_proxy": "http://127.0.0.1:9",
    }
    hub = await make_hub(environment=settings).start()

    served = healthy(hub)
    hub.signal(getattr(signal, read()[-1].last("STOPSIGNAL").text))
    status = await hub.wait_exit()

    assert (served, status) == (True, 0)
    assert not healthy(hub)
