"""`giqa bundle list|show|verify`."""

from __future__ import annotations

import json

import click

from giqa.bundle import list_bundles, load_bundle


@click.group()
def bundle() -> None:
    """List, show and verify bundles (weights with their manifest)."""


@bundle.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(as_json: bool) -> None:
    """List the bundles that ship with the package.

    Example: giqa bundle list
    """
    rows = []
    for folder in list_bundles():
        found = load_bundle(folder).manifest
        size = sum(f.bytes for f in found.files.values())
        best = found.accuracy[0] if found.accuracy else None
        rows.append(
            {
                "name": found.name,
                "version": found.version,
                "bytes": size,
                "srocc": best and best.srocc,
                "measured_on": best and f"{best.dataset} {best.split}",
            }
        )
        if not as_json:
            measured = f"SROCC {best.srocc:.3f} on {best.dataset} {best.split}" if best else ""
            click.echo(f"{found.name}\t{found.version}\t{size / 1e6:.1f} MB\t{measured}")
    if as_json:
        click.echo(json.dumps(rows, indent=1))


@bundle.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the whole manifest as JSON.")
def show(name: str | None, as_json: bool) -> None:
    """Show a bundle's manifest; NAME is a folder or a packaged bundle.

    Example: giqa bundle show giqa-s
    """
    found = load_bundle(name)
    manifest = found.manifest
    if as_json:
        click.echo(manifest.to_json(), nl=False)
        return
    sizes = manifest.tensors
    click.echo(f"bundle       {manifest.id}")
    click.echo(f"digest       {found.digest}")
    click.echo(f"views        global {sizes.global_side} px, local {sizes.local_side} px")
    if manifest.tiles:
        pixels = manifest.profiles["fast"].tile_pixels
        click.echo(f"tiles        {manifest.tiles}, of pictures from {pixels} pixels on")
    count = f"{sizes.grid**2} + {sizes.context_tokens}"
    click.echo(f"tokens       S {sizes.stages}, {count}, D {sizes.dim}, {sizes.token_dtype}")
    click.echo(f"quality map  {'yes' if sizes.quality_map else 'no'}")
    click.echo(f"int8         {'yes' if manifest.int8 else 'no'}")
    for one in manifest.accuracy:
        low, high = one.srocc_interval or (float("nan"),) * 2
        click.echo(
            f"accuracy     {one.dataset} {one.split} ({one.n}, {one.profile}, {one.engine}): "
            f"SROCC {one.srocc:.3f} ({low:.3f} .. {high:.3f}), PLCC {one.plcc:.3f}"
        )
        for name_, row in one.subsets.items():
            click.echo(f"             {name_} ({row.n}): SROCC {row.srocc:.3f}")
    click.echo(f"code         {manifest.licences.code}")
    click.echo(f"weights      {manifest.licences.weights}")
    for name_, terms in manifest.licences.data.items():
        click.echo(f"data         {name_}: {terms}")
    for name_, entry in manifest.files.items():
        click.echo(f"file         {entry.sha256[:16]} {entry.bytes:>10} {name_}")


@bundle.command()
@click.argument("name", required=False)
@click.option("--self-test/--no-self-test", default=True, help="Score the known image, too.")
def verify(name: str | None, self_test: bool) -> None:
    """Check every file's hash and the answer to the known image; exit 1 if something is wrong.

    Example: giqa bundle verify giqa-s
    """
    found = load_bundle(name)
    click.echo(f"{found.manifest.id}: {len(found.manifest.files)} files, hashes right")
    if self_test:
        from giqa.local import LocalScorer

        with LocalScorer(found, self_test=False) as scorer:
            difference = scorer.self_test()
            click.echo(
                f"{found.manifest.id}: self-test {found.manifest.self_test.score:.3f} "
                f"{difference:+.4f} with {scorer.engine}"
            )
