"""A stand-in by the lead so that others can run; whoever builds mapping and keys replaces this file."""
import json
def q(n): return '"'+n.replace('"','""')+'"'
def key_sql(fields, form):
    ks=[f for f in fields if f.key]
    conds=" OR ".join(f"{q(f.name)} IS NULL" for f in ks)
    return f"CASE WHEN {conds} THEN NULL ELSE to_json([{','.join(q(f.name)+'::VARCHAR' for f in ks)}])::VARCHAR END"
def record_keys_sql(fields):
    ks=[f for f in fields if f.key]
    return "to_json(struct_pack("+",".join(f"{q(f.name)} := {q(f.name)}" for f in ks)+"))::VARCHAR"
def key_of(values, names, form):
    if any(values.get(n) is None for n in names): return None
    return json.dumps([str(values[n]) for n in names],separators=(",",":"))
