"""A stand-in by the lead so that others can run; whoever builds mapping and keys replaces this file."""
import duckdb, pyarrow as pa
from dagster_retl.model.rows import FieldType
from dagster_retl.errors import SourceError, ErrorCode
def q(n): return '"'+n.replace('"','""')+'"'
class CompiledMapping:
    def __init__(s, mappings, schema):
        s.con=duckdb.connect()
        s.m=mappings
        names={n.lower():n for n in schema.names}
        s.ex=[q(names[m.source.lower()]) if m.source.lower() in names else m.source for m in mappings]
        s.con.register("b", pa.RecordBatch.from_pylist([],schema=schema))
        try: t=s.con.sql("select "+",".join(f"{e} as {q(m.destination)}" for e,m in zip(s.ex,mappings))+" from b").to_arrow_table()
        except duckdb.Error as e: raise SourceError(str(e), code=ErrorCode.SOURCE_COLUMN_MISSING)
        s.fields=tuple(FieldType(m.destination,t.schema.field(m.destination).type,m.key,m.on_null=="omit") for m in mappings)
    def apply(s, block):
        s.con.register("b", block)
        inner=",".join(f"TRY(struct_pack(v := {e})) as {q(m.destination)}" for e,m in zip(s.ex,s.m))
        outer=",".join(f"{q(m.destination)}.v as {q(m.destination)}" for m in s.m)
        err="CASE "+" ".join(f"WHEN {q(m.destination)} IS NULL THEN '{m.destination}'" for m in s.m)+" END"
        return s.con.sql(f"select {outer}, {err} as _error_field, case when ({err}) is not null then 'Conversion Error' end as _error from (select {inner} from b)").to_arrow_table()
    def __enter__(s): return s
    def __exit__(s,*a): s.con.close()
def compile_mapping(m, schema): return CompiledMapping(m, schema)
