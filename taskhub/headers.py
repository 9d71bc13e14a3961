"""Names of headers that the REST API and its client both know."""

from typing import Final

IDEMPOTENCY_HEADER: Final = "Idempotency-Key"
LEASE_HEADER: Final = "TaskHub-Lease-Token"
POSITION_HEADER: Final = "TaskHub-Position"
