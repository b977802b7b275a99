"""Beginnings of texts that are continued greedily: facts, a story, code, a list, a letter, a dialogue."""

PROMPTS = (
    "The capital of France is",
    "Once upon a time, in a village at the foot of a mountain, there lived",
    'def fibonacci(n):\n    """Return the n-th Fibonacci number."""\n',
    "Three reasons why people learn a second language:\n1.",
    "Dear Ms. Okafor,\n\nThank you for your letter of 3 May. I am writing to",
    "Question: Why is the sky blue?\nAnswer: The sky is blue because",
)
