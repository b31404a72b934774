"""Show the results of a run: a table on the terminal, and one page with tables, charts and pictures.

reads   the finished stages of a configuration, and the data set for pictures
writes  report.html and table.md next to the stages; for novel class discovery also gallery.png, and pictures of
        clusters and predictions for TensorBoard

    python report.py configs/demo/discovery.yaml
    python report.py configs/discovery/pascal_subset.yaml split=fold1 data.root=/my/voc
    python report.py configs/demo/incremental.yaml task=15-1                      # all methods of the task
    python report.py configs/demo/probe.yaml output_dir=output/demo_probe  # all networks evaluated there
    python report.py --env                                                 # versions and hardware, for a bug report
"""

import sys

from utils.entry import answer

if __name__ == "__main__":  # before the imports below, which take seconds
    if sys.argv[1:] == ["--env"]:
        from utils import environment

        print(environment.describe())
        raise SystemExit
    from utils.report.unchanged import unchanged_page

    if (printed := unchanged_page(answer(__doc__, __file__))) is not None:
        print(printed)
        raise SystemExit

from reports import open_page
from utils.checkpoint import write_text
from utils.config.reader import load_config
from utils.report import html
from utils.report.board import write_pictures
from utils.report.tables import table
from utils.report.unchanged import record_page
from utils.run import entry

# a difference between methods may be no more than that between seeds
ONE_RUN = "one run, seed {seed}: differences may be chance; python collect.py FOLDER ... compares several seeds"


def main(argv: list[str] | None = None) -> None:
    cfg = load_config(argv, __doc__, __file__)
    page = open_page(cfg)
    lead = f"{page.lead}{html.note(f'{ONE_RUN.format(seed=cfg.seed)}.')}"
    write_text(page.folder / "report.html", html.page(page.title, lead, page.sections))
    write_pictures(page.folder / "tb", page.pictures)
    titled = {f"{title}\n\n" if title else "": rows for title, rows in page.tables.items()}
    write_text(
        page.folder / "table.md", "\n".join(f"{title}{table(rows, 'markdown')}\n" for title, rows in titled.items())
    )
    lines = [f"{title}\n{table(rows)}\n" if title else f"{table(rows)}\n" for title, rows in page.tables.items()]
    lines.append(ONE_RUN.format(seed=cfg.seed))
    lines.append(f"curves{' and pictures' if page.pictures else ''}: tensorboard --logdir {page.folder}")
    lines.append(f"with pictures: {page.folder / 'report.html'}")
    print("\n".join(lines))
    record_page(cfg, page.folder, "\n".join(lines))


if __name__ == "__main__":
    entry(main)
