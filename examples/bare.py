"""The least there is to an agent: what the model is told, and how the phone is answered.

export OPENAI_API_KEY=...    # or OPENAI_BASE_URL=http://127.0.0.1:8000/v1, a server of yours
threadline serve examples.bare:agent
threadline demo --app examples.bare:agent
"""

from threadline.agent import Agent

agent = Agent(
    instructions="You answer the phone of the Harbour Bistro. One or two short sentences a turn.",
    greeting="Harbour Bistro, good evening.",
)
