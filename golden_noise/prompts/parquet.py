"""Prompts from a Parquet file, as Hugging Face's data sets come."""

import itertools
from collections.abc import Iterator
from pathlib import Path

from golden_noise.errors import UserError, one_line
from golden_noise.prompts.form import Form
from golden_noise.prompts.row import ANY, CAPTION_COLUMNS, KNOWN_COLUMNS, Row, check_columns, read_row


def read_parquet(file: Path, form: Form = ANY) -> Iterator[Row]:
    """The rows of a Parquet file; of its columns only those with a meaning are read, images never.

    Raises:
        UserError: pyarrow is missing, the file is damaged, it has no caption column, or a row cannot be read.
    """
    try:
        import pyarrow
        from pyarrow import parquet, types
    except ImportError as error:
        raise UserError(f"{file} needs the package pyarrow: pip install 'golden-noise[parquet]'") from error

    def is_text(dtype: pyarrow.DataType) -> bool:
        dtype = dtype.value_type if types.is_dictionary(dtype) else dtype
        return types.is_string(dtype) or types.is_large_string(dtype) or types.is_string_view(dtype)

    try:
        with parquet.ParquetFile(file) as source:
            names = [name.strip().lower() for name in source.schema_arrow.names]
            check_columns(str(file), names, form)
            known = {*KNOWN_COLUMNS, *form.read}
            fields = [field for field, name in zip(source.schema_arrow, names, strict=True) if name in known]
            for field in fields:
                if field.name.strip().lower() in CAPTION_COLUMNS and not is_text(field.type):
                    raise UserError(f"{file}: the captions in the column {field.name!r} are not text ({field.type})")
                if field.name.strip().lower() == "seed" and types.is_nested(field.type):
                    raise UserError(f"{file}: the seeds in the column {field.name!r} are not numbers ({field.type})")
            plain = [field.name for field in fields if not types.is_nested(field.type)]
            batches = (batch.to_pylist() for batch in source.iter_batches(columns=plain))
            for number, values in enumerate(itertools.chain.from_iterable(batches), start=1):
                cells = {name.strip().lower(): value for name, value in values.items()}
                if row := read_row(f"{file}, row {number}", cells, form):
                    yield row
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{file} is not a whole Parquet file ({one_line(error, 150)})") from error
