"""Rendered audio-visual actors: a synthetic emotion corpus whose cues are known exactly.

The modules follow a clip: `script` decides what happens (actor, label, cues, timing), `speech` and `voice` say it,
`motion`, `face` and `render` show it, `clip` puts both together and `command` writes thousands of them.
"""
