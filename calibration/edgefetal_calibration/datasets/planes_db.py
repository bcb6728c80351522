"""FETAL_PLANES_DB: 12,400 pictures of 1,792 patients, sorted by plane.

Burgos-Artizzu et al. 2020, doi 10.5281/zenodo.3904280, CC BY 4.0. Layout: `Images/<Image_name>.png`, and
`FETAL_PLANES_DB_data.csv` with semicolons between its columns. Pixel sizes are not given. The published division into
training and test pictures (the column `Train`) is not used: splits are drawn by patient here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgefetal_calibration.datasets.files import plain_name, read_table
from edgefetal_calibration.datasets.pictures import PictureExam
from edgefetal_devices.errors import DatasetError
from edgefetal_runtime.infer.bundle import ABDOMEN, FEMUR, HEAD, NO_PLANE

if TYPE_CHECKING:
    from pathlib import Path

LICENCE = "CC BY 4.0"
ATTRIBUTION = "FETAL_PLANES_DB, Burgos-Artizzu et al. 2020, doi 10.5281/zenodo.3904280"

KIND = "planes-db"
FOLDER = "Images"
TABLE = "FETAL_PLANES_DB_data.csv"

# Its classes, and for brains their kind, to the planes that are measured. HC is taken in the transthalamic plane, and
# may be taken in the transventricular one; in the transcerebellar one it may not.
PLANES: Final = {
    ("Fetal brain", "Trans-thalamic"): HEAD,
    ("Fetal brain", "Trans-ventricular"): HEAD,
    ("Fetal brain", "Trans-cerebellum"): NO_PLANE,
    ("Fetal brain", "Other"): NO_PLANE,
    ("Fetal abdomen", None): ABDOMEN,
    ("Fetal femur", None): FEMUR,
    ("Fetal thorax", None): NO_PLANE,
    ("Maternal cervix", None): NO_PLANE,
    ("Other", None): NO_PLANE,
}


def read_planes_db(root: Path) -> list[PictureExam]:
    """List the pictures of a FETAL_PLANES_DB folder in the official layout, by file name.

    Raises:
        DatasetError: the folder has not that layout, a picture is missing, or a row is malformed or stands twice.
    """
    table = root / TABLE
    if not table.is_file() or not (root / FOLDER).is_dir():
        raise DatasetError(f"{root} is not a FETAL_PLANES_DB folder; it must hold {FOLDER}/ and {TABLE}.")
    # Listed once, because to ask for each of twelve thousand is slow.
    present = {picture.name for picture in (root / FOLDER).iterdir()}
    exams: dict[str, PictureExam] = {}
    for number, row in read_table(table, ("Image_name", "Patient_num", "Plane", "Brain_plane"), delimiter=";"):
        name = f"{plain_name(row, 'Image_name', number, table).removesuffix('.png')}.png"
        where = f"{table}, row {number}"
        if name in exams:
            raise DatasetError(f"{where}: {name} stands twice; keep one row.")
        if name not in present:
            raise DatasetError(f"{where}: {root / FOLDER / name} is missing; restore it from the dataset.")
        plane = PLANES.get((row["Plane"], None)) or PLANES.get((row["Plane"], row["Brain_plane"]))
        if plane is None:
            raise DatasetError(
                f"{where}: {row['Plane']!r} with {row['Brain_plane']!r} is no plane of this dataset; restore the table."
            )
        subject = plain_name(row, "Patient_num", number, table)
        exams[name] = PictureExam(name, f"{KIND}/{subject}", root / FOLDER / name, where, plane)
    if not exams:
        raise DatasetError(f"{table} has no rows; unpack the dataset there.")
    return [exams[name] for name in sorted(exams)]
