"""How far a model really sees, and what a method costs: tasks, models and workflows for inspect_ai."""
