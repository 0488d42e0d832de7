"""What inspect, flops and env say: for each, plain data (for --json) and a rich rendering of it."""

from asap_export.report.environment import environment_facts, environment_table
from asap_export.report.flops import flops_facts, flops_table, saving_facts, saving_table
from asap_export.report.inspect import bundle_facts, bundle_tables, limits_text
from asap_export.report.presets import preset_facts, preset_table
from asap_export.report.trtexec import trtexec_commands

__all__ = [
    "bundle_facts",
    "bundle_tables",
    "environment_facts",
    "environment_table",
    "flops_facts",
    "flops_table",
    "limits_text",
    "preset_facts",
    "preset_table",
    "saving_facts",
    "saving_table",
    "trtexec_commands",
]
