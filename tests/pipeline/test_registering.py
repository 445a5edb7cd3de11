"""Decorating: the annotation is the codec, and what is wrong is said at once, by name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypedDict

import pytest

from penstock import App, ConfigError, Event, connect
from penstock.pipeline.annotations import Signature, read_signature
from penstock.pipeline.connecting import ConnectKeywords
from pipeline.helping import Invoice, Order

pytestmark = pytest.mark.one_loop


class Plain(TypedDict):
    number: int


@dataclass
class Record:
    number: int


def signature(function: Callable[..., Any], *, batch: bool = False) -> Signature:
    return read_signature(function, {}, batch=batch, own_codec=False)


def of_order(order: Order) -> Invoice | None: ...
def of_event(event: Event[Order]) -> list[Invoice]: ...
def of_any_event(event: Event) -> None: ...
def of_dict(order: dict) -> dict: ...
def of_strings(order: dict[str, str]) -> list[dict[str, str]] | None: ...
def of_nothing(order): ...
def of_bytes(body: bytes) -> bytes: ...
def of_typed_dict(order: Plain) -> Record: ...


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (of_order, Signature(Order, False, Invoice)),
        (of_event, Signature(Order, True, Invoice)),
        (of_any_event, Signature(None, True, None, gives_nothing=True)),
        (of_dict, Signature()),
        (of_strings, Signature()),
        (of_nothing, Signature()),
        (of_bytes, Signature(bytes, False, bytes)),
        (of_typed_dict, Signature(Plain, False, Record)),
    ],
)
def test_the_annotation_says_what_a_handler_takes_and_gives(
    function: Callable[..., Any], expected: Signature
) -> None:
    """Values, events, lists of results, and what says nothing."""
    assert signature(function) == expected


def of_orders(orders: list[Order]) -> None: ...
def of_events(events: Sequence[Event[Order]]) -> list[Invoice]: ...
def of_list(orders: list) -> None: ...


def test_a_batch_is_annotated_as_a_list() -> None:
    """Of values or of events."""
    assert signature(of_orders, batch=True) == Signature(Order, gives_nothing=True)
    assert signature(of_events, batch=True) == Signature(Order, True, Invoice)
    assert signature(of_list, batch=True) == Signature(gives_nothing=True)


class Service:
    def method(self, order: Order) -> None: ...

    async def __call__(self, order: Order) -> None: ...


def with_defaults(order: Order, dry: bool = False, *, loud: bool = True) -> None: ...


@pytest.mark.parametrize(
    "function", [Service().method, Service(), functools.partial(with_defaults, dry=True)]
)
def test_methods_objects_and_partials_are_handlers(function: Callable[..., Any]) -> None:
    """Whatever is called with one argument."""
    assert signature(function).value is Order


def test_types_of_the_enclosing_function_are_known() -> None:
    """As in most tests: the class stands beside the handler, and annotations are text."""

    class Local(Order):
        pass

    app = App()

    @app.on("orders", group="billing")
    async def handle(order: Local) -> None: ...

    assert app.handlers == {"orders billing": handle}


def test_the_decorated_function_stays_what_it_was() -> None:
    """Callable in unit tests, as if there were no App."""
    app = App()

    def double(order: Order) -> Invoice:
        return Invoice(2 * order.number)

    assert app.on("orders", group="billing", into="invoices")(double) is double
    assert double(Order(4)) == Invoice(8)


def takes_none() -> None: ...
def takes_two(order: Order, extra: int) -> None: ...
def takes_unknown(order: Unknown) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def takes_function(order: Callable[[], int]) -> None: ...
def gives_function(order: Order) -> Callable[[], int]: ...
def yields(order: Order) -> Any:
    yield order


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (takes_none, "handler takes_none must take the event"),
        (takes_two, "needs 'extra' too"),
        (takes_unknown, "'Unknown' is not defined"),
        (takes_function, "parameter 'order' of handler takes_function"),
        (gives_function, "the result of handler gives_function"),
        (yields, "must return its results as a list"),
        (Order, "must be a function"),
        (7, "must be a function"),
    ],
)
def test_what_is_wrong_with_a_function_is_said_at_once(function: Any, said: str) -> None:
    """By the names of function and parameter, before anything is connected."""
    app = App()

    with pytest.raises(ConfigError, match=said):
        app.on("orders", group="billing")(function)
    assert app.handlers == {}


def test_a_batch_that_is_no_list_is_refused() -> None:
    """What a list of events would be annotated as, is said."""
    with pytest.raises(ConfigError, match=r"list\[Order\]"):
        App().on_batch("orders", group="audit")(of_order)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"group": "with space"}, "group's name"),
        ({"concurrency": 0}, "concurrency of handler of_dict"),
        ({"concurrency": True}, "concurrency of handler of_dict"),
        ({"lease": 0.0}, "handler of_dict: lease must be"),
        ({"lease": timedelta(seconds=5)}, "lease must be a number of seconds"),
        ({"retry": 3}, r"retry must be a Retry, such as Retry\(attempts=3\)"),
        ({"start": "oldest"}, "start must be OLDEST, NEWEST"),
        ({"until": 5.0}, r"until must be END, idle\(seconds\)"),
        ({"share": "all"}, "share must be"),
        ({"into": "with space"}, "stream's name"),
        ({"into": 7}, "into= of handler of_dict"),
        ({"acks": "none"}, "acks= must be left out"),
        ({"colour": "red"}, "unknown option .colour.; it takes group, into"),
        ({"concurency": 4}, "is concurrency meant"),
    ],
)
def test_what_is_wrong_with_an_option_is_said_at_once(options: Any, said: str) -> None:
    """With the name of the handler where that helps."""
    with pytest.raises(ConfigError, match=said):
        App().on("orders", **{"group": "billing", **options})(of_dict)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 0}, "size >= 1"),
        ({"within": -1.0}, "within >= 0"),
        ({"size": 100, "max_in_flight": 150}, "at least twice its batch size, 200"),
        ({"share": "shards", "concurrency": 2}, "concurrency must be 1"),
    ],
)
def test_what_is_wrong_with_a_batch_is_said_at_once(options: Any, said: str) -> None:
    """Also what only shows in the combination."""
    with pytest.raises(ConfigError, match=said):
        App().on_batch("orders", group="audit", **options)(of_orders)


async def test_a_key_that_others_made_may_be_called_anything() -> None:
    """If that is said; else what to say is said."""
    app = App()
    with pytest.raises(ConfigError, match="foreign=True"):
        app.on("tenant:42", group="billing")(of_dict)
    app.on("tenant:42", group="billing", foreign=True)(of_dict)
    async with app.test() as test:
        assert (await test.send("tenant:42", {"n": 1})).status == "acked"


def test_a_handler_that_gives_nothing_goes_nowhere() -> None:
    """``into=`` with ``-> None`` is a contradiction."""
    with pytest.raises(ConfigError, match="annotated to return None"):
        App().on("orders", group="billing", into="invoices")(of_any_event)


def test_two_handlers_of_one_group_are_refused() -> None:
    """Each would miss what the other is given; over different streams they may share a name."""
    app = App()
    app.on("orders", group="billing")(of_dict)
    app.on("invoices", group="billing")(of_dict)

    with pytest.raises(ConfigError, match="each would miss"):
        app.on(["refunds", "orders"], group="billing")(of_order)


def test_handlers_of_other_modules_are_included() -> None:
    """Those that they get later too; not in a circle."""
    app, billing, inner = App(), App(), App()
    app.include(billing)
    billing.include(inner)
    app.include(billing)
    inner.on("orders", group="inner")(of_dict)

    assert app.handlers == {"orders inner": of_dict}
    with pytest.raises(ConfigError, match="does not include this"):
        inner.include(app)
    with pytest.raises(ConfigError, match="both in group 'inner'"):
        app.on("orders", group="inner")(of_order)


@pytest.mark.parametrize("url", ["http://localhost", "redis://localhost:port"])
def test_a_wrong_url_is_said_where_the_app_is_made(url: str) -> None:
    """Not when it is started."""
    with pytest.raises(ConfigError):
        App(url)


def test_an_app_takes_what_connect_takes() -> None:
    """The two lists of options are one."""
    assert set(ConnectKeywords.__annotations__) == set(inspect.signature(connect).parameters) - {
        "url"
    }
