"""jinja2's compiler, with a meter in the code it writes.

jinja2 turns a template into one Python generator function. Here every block of that function starts with `tick(cost)`,
where cost counts the syntax nodes that run when the block runs; loops pay for their items, and the operations that the
sandbox of jinja2 leaves to Python (`~`, comparisons, slices, dictionary keys) go through the guard.

The parent class is not a documented interface, so `sandbox.py` checks once per process that the meter is really in the
code (`check_metering`), and refuses to render anything otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame

# Fuel of a node: about 0.1 us each. Containers and calls also stand for the memory their objects take.
_COST: Final[dict[type, int]] = {
    nodes.Call: 4,
    nodes.List: 4,
    nodes.Tuple: 2,
    nodes.Dict: 4,
    nodes.Filter: 3,
    nodes.Getattr: 2,
    nodes.Getitem: 2,
    nodes.For: 12,
    nodes.Macro: 12,
    nodes.CallBlock: 12,
}
_GUARDED: Final = ("tick", "assign", "iterate", "weighed", "contains", "cut", "key", "join_texts", "concat")
_OWN_BLOCKS: Final = ("body", "else_")  # fields that become blocks of their own, with their own tick


def cost(node: nodes.Node) -> int:
    """Fuel for running `node` once, without the blocks inside it."""
    total = _COST.get(type(node), 1)
    for name, value in node.iter_fields():
        if name in _OWN_BLOCKS and isinstance(value, list):
            continue
        for child in value if isinstance(value, list) else (value,):
            if isinstance(child, nodes.Node):
                total += cost(child)
    return total


class MeteringCodeGenerator(CodeGenerator):
    """Writes calls of the guard into the template: `tick` for blocks, `iterate` for loops, and so on (`_GUARDED`)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._iterated: dict[int, int] = {}  # id of a loop's iterable -> fuel per item

    def write_commons(self) -> None:
        super().write_commons()
        self.writeline("guard = context.guard")
        for name in _GUARDED:
            self.writeline(f"{name} = guard.{name}")

    def blockvisit(self, nodes: Iterable[nodes.Node], frame: Frame) -> None:
        body = list(nodes)
        self.writeline(f"tick({1 + sum(map(cost, body))})")
        super().blockvisit(body, frame)

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        per_item = self._iterated.pop(id(node), None)
        if per_item is None:
            return super().visit(node, *args, **kwargs)
        self.write("iterate(")
        super().visit(node, *args, **kwargs)
        self.write(f", {per_item})")
        return None

    def visit_For(self, node: nodes.For, frame: Frame) -> None:
        self._iterated[id(node.iter)] = 1 + (cost(node.test) if node.test is not None else 0)
        super().visit_For(node, frame)

    def visit_Assign(self, node: nodes.Assign, frame: Frame) -> None:
        if not isinstance(node.target, nodes.NSRef):
            super().visit_Assign(node, frame)
            return
        self.push_assign_tracking()
        self.newline(node)
        self.write(f"assign({frame.symbols.ref(node.target.name)}, {node.target.attr!r}, ")
        self.visit(node.node, frame)
        self.write(")")
        self.pop_assign_tracking(frame)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("join_texts((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:
        operand = node.ops[0]
        if len(node.ops) == 1 and operand.op in ("in", "notin"):
            self.write("(not contains(" if operand.op == "notin" else "(contains(")
            self.visit(node.expr, frame)
            self.write(", ")
            self.visit(operand.expr, frame)
            self.write("))")
            return
        if any(operand.op in ("in", "notin") for operand in node.ops):
            self.fail("a chained comparison with 'in' is not supported in chat templates", node.lineno)
        self.write("(weighed(")
        self.visit(node.expr, frame)
        self.write(")")
        for operand in node.ops:
            self.visit(operand, frame)
        self.write(")")

    def visit_Operand(self, node: nodes.Operand, frame: Frame) -> None:
        self.write(f" {_OPERATORS[node.op]} weighed(")
        self.visit(node.expr, frame)
        self.write(")")

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:
        if not isinstance(node.arg, nodes.Slice):
            super().visit_Getitem(node, frame)
            return
        self.write("cut(")
        self.visit(node.node, frame)
        self.write(", slice(")
        for bound in (node.arg.start, node.arg.stop, node.arg.step):
            if bound is None:
                self.write("None")
            else:
                self.visit(bound, frame)
            self.write(", ")
        self.write("))")

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:
        self.write("{")
        for pair in node.items:
            self.write("key(")
            self.visit(pair.key, frame)
            self.write("): ")
            self.visit(pair.value, frame)
            self.write(", ")
        self.write("}")


_OPERATORS: Final = {"eq": "==", "ne": "!=", "gt": ">", "gteq": ">=", "lt": "<", "lteq": "<="}
