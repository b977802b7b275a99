"""Conversations that between them reach every part of the public templates."""

from __future__ import annotations

from typing import Any

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a place, in °C.\nSecond line.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Name of the city", "enum": ["Oslo", "Zürich"]},
                "days": {"type": "integer", "description": "How many days", "default": 1},
                "detail": {"type": "object", "properties": {"wind": {"type": "boolean"}}, "required": ["wind"]},
                "hours": {"type": "array", "items": {"type": "number"}},
            },
            "required": ["city"],
        },
        "return": {"type": "object", "description": "the weather"},
    },
}
CLOCK = {
    "type": "function",
    "function": {"name": "clock", "description": "The time", "parameters": {"type": "object", "properties": {}}},
}


def _user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def _assistant(text: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def _call(name: str, arguments: Any, id: str = "abcdef123") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


_CALLED = [
    _user('Weather in <Oslo> & "Zürich"?'),
    _assistant(
        "", tool_calls=[_call("get_weather", {"city": "Oslo", "days": 2, "hours": [1, 2.5], "detail": {"wind": True}})]
    ),
    {"role": "tool", "name": "get_weather", "tool_call_id": "abcdef123", "content": '{"temp": -3, "ok": true}'},
]
_TWO_CALLS = [
    {"role": "system", "content": "Use tools."},
    _user("Both, please"),
    _assistant(
        None,
        reasoning_content="Two calls.\nThen answer.",
        tool_calls=[_call("get_weather", {"city": "Oslo"}, "call00001"), _call("clock", {}, "call00002")],
    ),
    {"role": "tool", "name": "get_weather", "tool_call_id": "call00001", "content": "-3"},
    {"role": "tool", "name": "clock", "tool_call_id": "call00002", "content": "12:00"},
    _assistant("It is -3 °C at noon."),
    _user("Thanks"),
]

CONVERSATIONS: dict[str, dict[str, Any]] = {
    "plain": {"messages": [_user("Hello")]},
    "no_prompt": {"messages": [_user("Hi"), _assistant("Hello!")], "add_generation_prompt": False},
    "system": {"messages": [{"role": "system", "content": "Be brief.\n"}, _user("  Why?  ")]},
    "turns": {
        "messages": [
            {"role": "system", "content": "Be <b>brief</b>."},
            _user("One\n\ntwo"),
            _assistant("<think>\nhm\n</think>\n\nThree 🙂"),
            _user("Vier"),
            _assistant("fünf", reasoning_content="count on"),
            _user("{{ 6 }}"),
        ]
    },
    "developer": {"messages": [{"role": "developer", "content": "Be brief."}, _user("Why?")]},
    "parts": {"messages": [_user([{"type": "text", "text": "What is"}, {"type": "text", "text": " this?"}])]},
    "image": {"messages": [_user([{"type": "image"}, {"type": "text", "text": "What is this?"}])]},
    "tools": {"messages": [_user("Weather?")], "tools": [WEATHER, CLOCK]},
    "tools_system": {"messages": [{"role": "system", "content": "Sys"}, _user("Weather?")], "tools": [WEATHER]},
    "tool_result": {"messages": _CALLED, "tools": [WEATHER]},
    "tool_answer": {"messages": [*_CALLED, _assistant("Cold."), _user("And now?")], "tools": [WEATHER, CLOCK]},
    "two_calls": {"messages": _TWO_CALLS, "tools": [WEATHER, CLOCK]},
    "string_arguments": {
        "messages": [
            _user("Weather?"),
            _assistant(None, tool_calls=[_call("get_weather", '{"city": "Oslo", "n": [1, null]}')]),
            {"role": "tool", "name": "get_weather", "tool_call_id": "abcdef123", "content": "-3"},
        ],
        "tools": [WEATHER],
    },
    "thinking_on": {"messages": [_user("Why?")], "extra": {"enable_thinking": True, "thinking": True}},
    "thinking_off": {"messages": [_user("Why?")], "extra": {"enable_thinking": False, "thinking": False}},
    "no_tools": {"messages": [_user("Why?")], "tools": [], "extra": {"functions": "[]", "datetime": "now"}},
    "effort": {
        "messages": [_user("Why?")],
        "extra": {"reasoning_effort": "high", "builtin_tools": ["browser", "python"]},
    },
    "documents": {
        "messages": [_user("Why?")],
        "documents": [{"title": "A", "text": "one", "doc_id": "1"}, {"title": "B", "text": "two", "doc_id": "2"}],
    },
}
