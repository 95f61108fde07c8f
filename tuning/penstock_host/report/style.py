"""How the report looks: by day, by night, on a phone and on paper."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root {
  --background: #ffffff; --card: #f5f7fa; --text: #1c2430; --quiet: #5b6675; --line: #dfe4ea;
  --good: #00806a; --bad: #c0262d; --careful: #9a5b00; --before: #c26a00; --after: #0b5fae;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --background: #14181f; --card: #1b212b; --text: #e6eaf0; --quiet: #9aa5b4; --line: #2a313c;
    --good: #4fd1b0; --bad: #ff6b6b; --careful: #ffb454; --before: #ffb454; --after: #6fb3ff;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--background); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
main { max-width: 1000px; margin: 0 auto; padding: 32px 18px 56px; }
h1 { font-size: 27px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 19px; margin: 42px 0 12px; }
h3 { font-size: 15px; margin: 26px 0 8px; }
p { margin: 0 0 10px; }
.quiet { color: var(--quiet); }
.subtitle { color: var(--quiet); margin: 0 0 20px; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 10px; margin: 20px 0; }
.tile { background: var(--card); border-radius: 8px; padding: 12px 14px 10px; border: 1px solid var(--line); }
.tile b { display: block; font-size: 21px; font-weight: 650; line-height: 1.25; }
.tile span { color: var(--quiet); font-size: 13px; }
.good { color: var(--good); }
.bad { color: var(--bad); }
.careful { color: var(--careful); }
.notice { border-left: 3px solid var(--bad); background: var(--card); padding: 9px 14px; border-radius: 4px; }
.notice.careful-line { border-color: var(--careful); }
pre {
  background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px; margin: 0 0 12px;
  font: 12.5px/1.45 ui-monospace, "DejaVu Sans Mono", monospace; overflow-x: auto;
}
.item { border-top: 1px solid var(--line); padding: 9px 0; display: grid; grid-template-columns: 128px 1fr; gap: 2px 14px; }
.item .status { font-weight: 600; font-size: 12.5px; padding-top: 2px; letter-spacing: 0.01em; }
.item .status span { font-weight: 400; }
code { font: 0.92em ui-monospace, "DejaVu Sans Mono", monospace; }
.item .what { overflow-wrap: anywhere; }
.item .what b { font-weight: 600; }
.item dl { margin: 3px 0 0; }
.few { display: grid; grid-template-columns: repeat(auto-fill, minmax(290px, 1fr)); gap: 0 22px; }
.few div { border-top: 1px solid var(--line); padding: 5px 0; overflow-wrap: anywhere; font-size: 13.5px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 3px 14px; margin: 0; font-size: 13.5px; }
dt { color: var(--quiet); }
dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; margin-bottom: 14px; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 5px 9px; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--quiet); font-weight: 500; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
.left th, .left td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.figure { border-top: 1px solid var(--line); padding: 9px 0; display: grid; gap: 2px 18px; align-items: center;
  grid-template-columns: minmax(190px, 1.1fr) minmax(180px, 1.4fr) minmax(170px, 1fr); }
.figure small, .legend { color: var(--quiet); font-size: 12.5px; }
.figure b { font-weight: 600; }
.track { position: relative; height: 20px; }
.track i { position: absolute; top: 0; bottom: 0; left: 50%; border-left: 1px solid var(--quiet); }
.track u { position: absolute; top: 9px; height: 3px; background: currentColor; border-radius: 2px; min-width: 3px; }
.track s { position: absolute; top: 5px; width: 11px; height: 11px; margin-left: -5px; border-radius: 6px; background: currentColor; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(290px, 1fr)); gap: 14px; margin: 14px 0; }
.panels svg { width: 100%; height: auto; display: block; }
.swatch { display: inline-block; width: 13px; height: 9px; margin: 0 5px 0 12px; border-radius: 2px; }
@media (max-width: 620px) {
  main { padding: 22px 14px 40px; }
  h1 { font-size: 22px; }
  .item { grid-template-columns: 1fr; }
  .figure { grid-template-columns: 1fr; }
  dl { grid-template-columns: 1fr; }
  .item dl { grid-template-columns: max-content 1fr; }
  dd { margin-bottom: 5px; }
}
@media print {
  body { font-size: 10.5pt; }
  main { max-width: none; padding: 0; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
  .scroll { overflow: visible; }
  .item, .figure, .tile, .panels > *, .few div, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .track u, .track s, .swatch, .tile, pre { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
