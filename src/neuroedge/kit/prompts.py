"""What the chat engine says to an LLM: the instruction to answer, and the check whether lines answer a question.

Chosen by measurement on small models (benchmarks/grounded_answers.py, development conversations): an example in the
instruction makes the model answer in whole sentences, which can be checked; as many examples with "yes" as with "no"
keep the check from leaning to one side.
"""

from typing import Final

NOT_FOUND: Final = "NOT_FOUND"
SYSTEM: Final = (
    "You answer questions about a conversation. Use only the transcript. Answer with one short sentence. If the"
    f" transcript does not say it, reply exactly {NOT_FOUND}.\n\n"
    "Example transcript:\nS1: Hello, this is Bill. I moved to Leeds in May.\nS2: Nice, I have a cat now.\n"
    "Question: Where does Bill live?\nAnswer: Bill lives in Leeds.\n"
    f"Question: What is the cat's name?\nAnswer: {NOT_FOUND}\nQuestion: How old is Bill?\nAnswer: {NOT_FOUND}"
)
CHECK: Final = "You check whether an excerpt of a conversation answers a question. Reply yes or no."
CHECK_EXAMPLES: Final = (
    ("S2: Where do you live?\nS1: In Leeds, since May.", "Where does S1 live?", "yes"),
    ("S1: Hello, this is Bill. I moved to Leeds in May.", "How old is Bill?", "no"),
    ("S1: Hello, this is Bill from Acme Paints.", "What is Bill's employer?", "yes"),
    ("S2: My cat broke a vase on Sunday.", "What is the cat's name?", "no"),
    ("S2: The kitchen? I can't, I've got the flu.", "Why can she not come?", "yes"),
    ("S1: We painted the kitchen, it took two days.", "Which company painted the kitchen?", "no"),
    ("S1: Did you phone them?\nS2: Three times, nobody answered.", "How often did she phone?", "yes"),
    ("S1: We painted the kitchen, it took two days.", "How much did the paint cost?", "no"),
    ("S1: The bus? It was late again, so I walked.", "How did he get there?", "yes"),
    ("S1: They call me Shorty at school.", "What do the pupils call him?", "yes"),
    ("S1: This is Bill in Leeds.", "What is Bill's last name?", "no"),
    ("S1: The coat is nice, but it is too heavy.", "What is bad about the coat?", "yes"),
)
