"""The rewrite job: captions that exist already, people's or a captioner's, rewritten by a language model without one."""
