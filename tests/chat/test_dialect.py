"""The language: everything that public templates do not reach, compared with plain jinja2; and where we differ."""

# ruff: noqa: E501  (a template on one line is easier to read than one in pieces)
from __future__ import annotations

from datetime import datetime

import pytest
from halfbyte.formats.errors import TemplateError
from halfbyte.runtime.chat import ChatTemplate

from . import plain

NOW = datetime(2026, 3, 7, 9, 5, 3)
MESSAGES = [{"role": "user", "content": "Hello <World>\n  ça va?\n"}, {"role": "assistant", "content": "b"}]

SAME = """
{{ 1 + 2 * 3 - 4 / 2 }} {{ 7 // 2 }} {{ 7 % 3 }} {{ 2 ** 10 }} {{ -3 }} {{ +3 }} {{ 2 ** -1 }} {{ 1.5 * 2 }}
{{ 'a' + 'b' }} {{ 'a' ~ 1 ~ none ~ [1] }} {{ 'ab' * 3 }} {{ [1] + [2] }} {{ (1,) + (2,) }} {{ [0] * 3 }} {{ 3 * 'x' }}
{{ 1 < 2 < 3 }} {{ 1 == 1.0 }} {{ 'a' != 'b' }} {{ [1, [2]] == [1, [2]] }} {{ 'b' > 'a' }} {{ 1 >= 1 }} {{ 1 <= 0 }}
{{ 'a' in 'abc' }} {{ 'a' not in ['b'] }} {{ 1 in {1: 2} }} {{ [1] in [[1]] }} {{ 2 in (1, 2) }} {{ 1 in range(3) }}
{{ 'abcdef'[1:4] }} {{ 'abcdef'[::-1] }} {{ [1, 2, 3][1:] }} {{ (1, 2, 3)[:2] }} {{ 'abc'[-1] }} {{ [1][5] is defined }}
{{ messages[0]['role'] }} {{ messages[0].role }} {{ messages[0].nope is defined }} {{ messages[-1].content }}
{{ {'a': {'b': 1}}.a.b }} {{ {'a': 1}['a'] }} {{ {1: 'x'}[1] }} {{ messages[0]|length }} {{ 'x'.nope is defined }}
{{ 'yes' if 1 else 'no' }}{{ 'yes' if 0 }} {{ 1 and 0 }} {{ 0 or 'x' }} {{ not 1 }} {{ none }} {{ true }} {{ 1.0 }}
{{ undefined_thing }}|{{ undefined_thing is undefined }}|{{ undefined_thing|default('d') }}|{{ ''|default('d', true) }}
{% for i in range(3) %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{% endfor %}
{% for i in range(3) %}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.depth }}{{ loop.previtem }}{{ loop.nextitem }}{% endfor %}
{% for i in 'abcd' %}{{ loop.cycle('x', 'y') }}{{ loop.changed(i) }}{% endfor %}{% for i in [] %}{% else %}empty{% endfor %}
{% for i in range(9) if i % 2 %}{{ i }}{{ loop.length }}{% else %}none{% endfor %}{% for i in range(9) if i > 9 %}{% else %}none{% endfor %}
{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}
{% for k, v in {'b': 1, 'a': 2}.items() %}{{ k }}{{ v }}{% endfor %}{% for k in {'b': 1} %}{{ k }}{% endfor %}
{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}{% for k in {'b': 1}.keys() %}{{ k }}{% endfor %}
{% set x = 1 %}{% for i in range(2) %}{{ x }}{% set x = i + 5 %}{{ x }}{% endfor %}{{ x }}
{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}{% with x = 3, y = x %}{{ x }}{{ y }}{% set x = 4 %}{% endwith %}{{ x }}
{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set ns = namespace(x=1, y=[]) %}{% set ns.x, ns.y = ns.y, ns.x %}{{ ns.x }}{{ ns.y }}
{% set ns = namespace({'a': 1}, b=2) %}{% for i in range(3) %}{% set ns.a = ns.a + ns.b %}{% endfor %}{{ ns.a }}{{ ns.c is defined }}
{% set t %}block {{ 1 }}{% endset %}[{{ t }}]{% set u | upper %}up{% endset %}{{ u }}{% filter upper %}x{{ 'y' }}{% endfilter %}
{% macro m(a, b='B', *c) %}{{ a }}{{ b }}{{ c }}{{ varargs }}{{ kwargs }}{% endmacro %}
{% macro m(a, b='B') %}{{ a }}{{ b }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1) }}{{ m(1, 2) }}{{ m(1, 2, 3, z=4) }}{{ m.name }}
{% macro m(a) %}<{{ caller(a) }}>{% endmacro %}{% call(x) m('q') %}inner {{ x }}{% endcall %}{{ m is defined }}
{% macro f(n) %}{{ n if n < 2 else f(n - 1)|int + f(n - 2)|int }}{% endmacro %}{{ f(9) }}
{% set l = [1] %}{% set _ = l.append(2) %}{{ l }}{{ l.pop(0) }}{{ l }}{{ [1, 2, 1].count(1) }}{{ [1, 2].index(2) }}
{{ 'a,b,c'.split(',') }}{{ ' a  b '.split() }}{{ 'a,b,c'.rsplit(',', 1) }}{{ 'a\\nb'.splitlines() }}{{ 'a,b'.split(',')[-1] }}
{{ ' x '.strip() }}|{{ 'xxy'.lstrip('x') }}|{{ 'yxx'.rstrip('x') }}|{{ 'abc'.startswith('a') }}|{{ 'abc'.endswith(('b', 'c')) }}
{{ 'abc'.find('c') }}{{ 'abcc'.rfind('c') }}{{ 'abc'.replace('b', 'XX') }}{{ 'a-b'.partition('-') }}{{ 'aBc'.upper() }}{{ 'aBc'.lower() }}
{{ 'ab cd'.title() }}{{ 'ab'.capitalize() }}{{ '12'.isdigit() }}{{ 'a'.center(5, '*') }}{{ '7'.zfill(3) }}{{ 'a'.ljust(3) }}|{{ ','.join(['a', 'b']) }}
{{ '{} {1}'.format(1, 2) if false else '{0}-{1}-{x}'.format(1, 'b', x=2) }}{{ '{:>5}|{:<4}|{:^5}|{:05d}|{:.2f}'.format('a', 'b', 'c', 42, 1.005) }}
{{ '{:,}'.format(1234567) }}{{ '{!r}'.format('a') }}{{ '{{}}'.format() }}{{ '%s-%05.1f-%d%%' % ('a', 2.25, 7) }}{{ '%(a)s' % {'a': 1} }}
{{ '%s'|format('x') }}{{ '%(a)d'|format(a=3) }}{{ 'abc'|upper }}{{ 'ABC'|lower }}{{ 'abc'|capitalize }}{{ 'a b-c'|title }}{{ ' x '|trim }}|{{ 'xax'|trim('x') }}
{{ 'abc'|center(9) }}|{{ 'a\\nb\\n\\nc'|indent(2) }}|{{ 'a\\nb'|indent('> ', true) }}|{{ 'a\\n\\nb'|indent(1, blank=true) }}|{{ 'aaa'|replace('a', 'b', 2) }}
{{ 'hello wide world'|truncate(9) }}{{ 'hello world again'|truncate(8, true, '!', 0) }}{{ 'one two'|wordcount }}{{ 12|string + 'x' }}{{ [1]|string }}
{{ '<a>'|e }}{{ '<a>'|safe + '<b>' }}{{ '<a>' + '<b>'|safe }}{{ ('<a>'|e).replace('&', '<') }}{{ '<'|e ~ '<' }}{{ '<x>'|escape|upper }}{{ ('<'|safe) * 2 }}
{{ [3, 1, 2]|sort }}{{ ['b', 'A']|sort }}{{ ['b', 'A']|sort(case_sensitive=true) }}{{ [1, 2]|sort(reverse=true) }}{{ messages|sort(attribute='role')|map(attribute='role')|list }}
{{ [3, 1, 2]|min }}{{ [3, 1, 2]|max }}{{ ['b', 'A']|max }}{{ []|min is undefined }}{{ [1, 2]|sum }}{{ [{'a': 1}, {'a': 2}]|sum('a') }}{{ [1, 1, 2]|unique|list }}
{{ [1, 2, 3]|first }}{{ [1, 2, 3]|last }}{{ 'abc'|first }}{{ []|first is undefined }}{{ 'abc'|list }}{{ 'abc'|reverse }}{{ [1, 2]|reverse|list }}{{ {'a': 1}|list }}
{{ [1, 2, 3, 4, 5]|batch(2, 'x')|list }}{{ [1, 2, 3, 4, 5]|slice(2)|list }}{{ {'b': 1, 'A': 2}|dictsort }}{{ {'b': 1, 'a': 2}|dictsort(by='value') }}
{{ messages|groupby('role') |map('first')|list }}{% for g in messages|groupby('role') %}{{ g.grouper }}{{ g.list|length }}{% endfor %}{{ {'a': 1}|items|list }}
{{ messages|map(attribute='role')|join(', ') }}{{ [1, 2]|join }}{{ messages|join('|', attribute='role') }}{{ ['a', 'b']|map('upper')|list }}{{ none|map('upper')|list }}
{{ {'role': 1}|attr('role') }}{{ [1, 2, 3, 4]|select('odd')|list }}{{ [1, 0]|select|list }}{{ [1, 2]|reject('odd')|list }}{{ messages|selectattr('role', 'equalto', 'user')|list|length }}
{{ messages|rejectattr('role', '==', 'user')|map(attribute='role')|list }}{{ messages|selectattr('nope')|list }}{{ messages|selectattr('role', 'in', ['user'])|list|length }}
{% if []|select %}true{% endif %}{% if none|selectattr('x') %}true{% endif %}{{ ([1, 2]|map('string'))|first }}{% set g = [1, 2]|map('string') %}{{ g|list }}{{ g|list }}
{{ '42'|int }}{{ 'x'|int(7) }}{{ '0x1f'|int(base=16) }}{{ '4.7'|int }}{{ '1.5'|float }}{{ 'x'|float }}{{ -3|abs }}{{ 2.567|round(2) }}{{ 2.5|round }}{{ 2.1|round(0, 'ceil') }}
{{ {'a': [1, 'é', none, true, 1.5]}|tojson }}{{ {'a': [1, {}]}|tojson(indent=2) }}{{ {'b': 1, 'a': 2}|tojson(sort_keys=true) }}{{ 'é'|tojson(ensure_ascii=true) }}
{{ [1, 2]|tojson(separators=(',', ':')) }}{{ '<&>\\u2028"'|tojson }}{{ messages|tojson }}{{ range(3)|list|tojson }}{{ 1|tojson(indent=4) }}{{ [[]]|tojson(indent='\\t') }}
{{ 1 is odd }}{{ 2 is even }}{{ 9 is divisibleby 3 }}{{ 'a' is string }}{{ {} is mapping }}{{ [] is sequence }}{{ 1 is number }}{{ 1.0 is float }}{{ 1 is integer }}{{ true is boolean }}
{{ [] is iterable }}{{ 'a' is iterable }}{{ 1 is iterable }}{{ none is none }}{{ true is true }}{{ 1 is true }}{{ 'a' is lower }}{{ 'A' is upper }}{{ 1 is sameas 1 }}{{ 'a' is in ['a'] }}
{{ 'upper' is filter }}{{ 'odd' is test }}{{ 1 is eq 1 }}{{ 1 is lt(2) }}{{ [] is callable }}{{ 'x'|safe is escaped }}{{ x is defined }}{{ {} is sequence }}{{ range(3) is sequence }}
{{ range(3)|list }}{{ range(1, 9, 3)|list }}{{ range(3, 0, -1)|list }}{{ range(5)[1:3]|list }}{{ range(5)|length }}{{ range(2) }}
{{ dict(a=1) }}{{ dict({'a': 1}, b=2) }}{% set j = joiner('|') %}{{ j() }}a{{ j() }}b{% set c = cycler('x', 'y') %}{{ c.next() }}{{ c.next() }}{{ c.current }}
{{ strftime_now('%Y-%m-%d %H:%M:%S %B %d, %j %y %%') }}{{ {'a': 1}.get('a') }}{{ {'a': 1}.get('b', 2) }}{{ {'a': 1}.get('b') }}{{ {'a': 1}.values()|list }}{{ {'items': 5}['items'] }}
{{ messages[0].get('role').upper().lower()[0] }}{{ [messages][0][0].role }}{{ (messages|first).role }}{{ [[1, 2], [3]]|map('length')|list }}{{ ['a']|map('replace', 'a', 'b')|list }}
   {%- if true -%}   x   {%- endif -%}   y {#- comment -#}   z
{% raw %}{{ not rendered }}{% endraw %}{{ '\\u00e9\\n' }}{{ "it's" }}{{ 'a' 'b' }}{{ 1_000 }}{{ 1e3 }}{{ 0x10 }}{{ 0b11 }}
{% set a = [1, 2] %}{{ a }}{{ (1, 'a') }}{{ {'a': 'b'} }}{{ ['é', "q'"] }}{{ [none, true, 1.5, undefined_thing] }}
{% generation %}assistant {{ 1 }}{% endgeneration %}{% generation %}{% for i in [1] %}{{ i }}{% endfor %}{% endgeneration %}
""".strip().split("\n")


@pytest.mark.parametrize("source", SAME)
def test_same_as_plain_jinja2(source: str) -> None:
    variables = {"messages": [dict(m) for m in MESSAGES], "tools": None, "documents": None, "bos_token": "<s>"}
    try:
        expected = plain.render(source, {**variables, "eos_token": "</s>", "add_generation_prompt": True}, NOW)
    except Exception:
        with pytest.raises(TemplateError):
            ChatTemplate(source).render(MESSAGES, now=NOW)
        return
    assert ChatTemplate(source, bos_token="<s>").render(MESSAGES, now=NOW) == expected


def test_most_of_the_table_renders() -> None:
    """The comparison above also accepts that both fail; that must stay the exception."""
    failed = []
    for source in SAME:
        try:
            ChatTemplate(source).render(MESSAGES, now=NOW)
        except TemplateError:
            failed.append(source)
    assert len(failed) <= 1, failed


def _render(source: str) -> str:
    return ChatTemplate(source).render(MESSAGES, now=NOW)


def test_dates_are_the_same_on_every_system() -> None:
    assert _render("{{ strftime_now('%-d.%-m.%Y %e %-H') }}") == "7.3.2026  7 9"
    assert _render("{{ strftime_now('%D %T %F %h') }}") == "03/07/26 09:05:03 2026-03-07 Mar"


def test_from_json() -> None:
    assert _render("""{{ '{"a": [1, null]}'|from_json }}""") == "{'a': [1, None]}"
    with pytest.raises(TemplateError, match="line 1"):
        _render("{{ '{'|from_json }}")


def test_what_is_refused_on_purpose() -> None:
    for source, reason in {
        "{% for x in [1] recursive %}{% endfor %}": "recursive",
        "{{ 1 < 2 in [2] }}": "chained",
        "{{ 'x'|urlize }}": "urlize",
        "{{ {'update': 1}.update }}": "update",
        "{{ 1|fancy }}": "fancy",
        "{{ namespace }}": "function",
    }.items():
        with pytest.raises(TemplateError, match=reason):
            _render(source)
