"""The server keeps to the schema that it publishes, whatever it is asked."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_workspace import SITE, SUBJECT, MadeWorkspace
from schemathesis import Case

from neuron_explainer.view.contract import key_of
from neuron_explainer.view.resources import Resources
from neuron_explainer.view.security import Access
from neuron_explainer.view.server import app
from neuron_explainer.workspace import Workspace

pytestmark = pytest.mark.enable_socket  # the client's event loop has a pair of them

# what is there, for examples that get further than "there is no such site"
KNOWN = {
    "site": st.just(key_of(SUBJECT, SITE)),
    "column": st.sampled_from(
        ["density", "maximum", "made-first--simulated--correlation_top_and_random"]
    ),
    "folder": st.sampled_from(["0", "1"]),
    "block": st.integers(0, 80).map(str),
    "bucket": st.integers(0, 70).map(str),
    "neuron": st.integers(0, 1300).map(str),
}


@pytest.fixture(scope="module")
def api(made: MadeWorkspace) -> Any:
    """The schema, beside the app that it is of."""
    return schemathesis.openapi.from_asgi(
        "/api/openapi.json", app(Resources(Workspace(made.root)), access=Access("testserver"))
    )


def test_every_reply_is_what_the_schema_says(api: Any) -> None:
    """Each operation by itself: names that are there and names that are not, mixed."""
    operations = [found.ok() for found in api.get_all_operations()]
    assert len(operations) == 7
    for operation in operations:

        @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(), data=st.data())
        def check(case: Case[Any], data: Any) -> None:
            for name in case.path_parameters or {}:
                if data.draw(st.integers(0, 3), label=f"known {name}"):
                    case.path_parameters[name] = data.draw(KNOWN[name], label=name)
            response = case.call()
            assert response.status_code < 500
            case.validate_response(response)

        check()
