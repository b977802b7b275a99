"""How a report looks: on a wide screen, on a phone, in the dark, on paper."""

from __future__ import annotations

from .colors import variables

STYLE = (
    f":root {{ color-scheme: light dark; {variables(dark=False)} }}\n"
    f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {variables(dark=True)} }} }}\n"
    """
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 2rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", Arial, sans-serif; }
h1 { margin: 0; font-size: 1.7rem; line-height: 1.2; font-weight: 650; }
h2 { margin: 3rem 0 .25rem; font-size: 1.2rem; font-weight: 650; }
h3 { margin: 1.75rem 0 .25rem; font-size: 1rem; font-weight: 650; }
figure { margin: 0; }
p { margin: .25rem 0 1rem; max-width: 46rem; }
.note { color: var(--muted); max-width: none; }
.warn { color: var(--warn); }
code, .name { font: .92em ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: .5rem 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .9rem .35rem 0; text-align: right; white-space: nowrap; vertical-align: baseline; }
th { color: var(--muted); font-weight: 500; font-size: .85em; vertical-align: bottom; }
thead th { border-bottom: 1px solid var(--faint); }
tbody th { font-size: inherit; color: var(--ink); vertical-align: baseline; }
tbody tr + tr > * { border-top: 1px solid var(--faint); }
th:first-child, td:first-child { text-align: left; }
th:last-child, td:last-child { padding-right: 0; }
td small, th small { color: var(--muted); font-size: .85em; }
td br + small { display: inline-block; line-height: 1.2; }
.pictures { display: grid; gap: 1.25rem 1.5rem; margin: .75rem 0 1rem; align-items: end;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); }
.pictures.two { grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
.beside { display: grid; gap: 1rem 2.5rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
.pictures > *, .beside > * { min-width: 0; }
svg { display: block; width: 100%; max-width: 34rem; height: auto; }
.pictures:not(.two) svg { max-width: 26rem; }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
svg text { font-family: inherit; }
dl { margin: 0; }
dt { margin-top: .6rem; font-weight: 600; }
dd { margin: 0; color: var(--muted); }
summary { cursor: pointer; padding: .5rem 0; }
footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--faint); color: var(--muted); }
@media (max-width: 40rem) { body { padding: 1.25rem 1rem 3rem; } h1 { font-size: 1.4rem; } }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  svg, tr, .together { break-inside: avoid; } h2, h3 { break-after: avoid; }
  .pictures { gap: .5rem 1rem; grid-template-columns: repeat(3, 1fr); }
  .pictures.two { grid-template-columns: 1fr 1fr; }
  .scroll { overflow: visible; } table { font-size: 8pt; } th, td { padding-right: .5rem; }
}
"""
)
