"""Rendered damage: groups of one clean picture and damaged versions, each with what it loses.

Labels come from nobody who saw the pictures: from published opinions of such damage, and from
`training.fidelity`, which sees both pictures.
"""
