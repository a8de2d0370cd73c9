"""A story to watch: a warehouse with all that makes data hard, a CRM with rules, and what a sync does between them."""
