"""Knowledge: the named things of texts and how they are related, each relation with the sentence that says so.

Method: named entity recognition, then relations along dependency paths by rules (`kit/relations.py`; Del Corro &
Gemulla 2013, "ClausIE"; Angeli et al. 2015). Default model: en_core_web_sm 3.8 (explosion, MIT), of OntoNotes 5.

Limits: English. Only relations between two *named* things within one sentence; dates and amounts are no things. Rows of
Markdown tables are not read: a recogniser that is made for sentences takes their headers for names.
Pronouns and descriptions are not resolved ("he", "the composer"); a surname alone joins the only full name of its text
that ends in it. Two things of one name and type are one. A statement denied, possible or only reported is marked, not
left out: read the flags. Figures are in benchmarks/results.
"""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput
from neuroedge.contract.errors import Unavailable
from neuroedge.contract.models import ENTITIES, ParsedText
from neuroedge.kit.markdown_table import without_tables
from neuroedge.kit.names import Named, gather, with_proper_nouns
from neuroedge.kit.relations import relations

EntityType = Literal["person", "organisation", "place", "group", "product", "event", "work", "language"]
Text = Annotated[str, Field(min_length=1, max_length=20_000)]


class Input(EngineInput):
    """Texts to read; equal names in them are one thing."""

    texts: list[Text] = Field(min_length=1, max_length=256, description="Texts, each 1 to 20000 characters.")


class Mention(BaseModel):
    """Where a name stands."""

    text: int = Field(description="Index of the text.")
    start: int = Field(description="First character.")
    end: int = Field(description="Character after the last one.")


class Entity(BaseModel):
    """A named thing."""

    name: str = Field(description="Its fullest spelling in the texts.")
    key: str = Field(description="The spelling it is compared by: case folded, without article, title and punctuation.")
    type: EntityType = Field(description="What most of its mentions were recognised as.")
    aliases: list[str] = Field(description="All spellings, the most frequent first.")
    mentions: list[Mention] = Field(description="Every place it is named at.")


class Evidence(BaseModel):
    """The sentence a relation was read from."""

    text: int = Field(description="Index of the text.")
    start: int = Field(description="First character of the sentence.")
    end: int = Field(description="Character after the last one.")
    sentence: str = Field(description="The sentence itself.")


class Relation(BaseModel):
    """What a sentence says of two things."""

    subject: int = Field(description="Index in `entities`.")
    predicate: str = Field(description="Words between, in their base form: 'be born in', 'give lesson to'.")
    object: int = Field(description="Index in `entities`.")
    negated: bool = Field(description="The sentence denies it.")
    modal: str | None = Field(description="The word that makes it possible only: may, could, if …")
    reported: bool = Field(description="The sentence gives it as what somebody says or believes.")
    evidence: Evidence = Field(description="Where it stands.")


class Output(EngineOutput):
    """Things and relations, in the order they are first mentioned."""

    entities: list[Entity] = Field(description="Named things.")
    relations: list[Relation] = Field(description="Relations between them.")


class KnowledgeEngine(Engine[Input, Output]):
    """Texts to named things and relations between them."""

    name = "knowledge"
    title = "Entities and relations"
    version = "2"
    method = "ner+dependency-clauses"
    example = Input(texts=["Marie Curie was born in Warsaw. In Paris, Curie married Pierre Curie."])
    needs = (ENTITIES,)

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Parse the texts and read things and relations off the parses."""
        async with ctx.models.lease(ENTITIES) as parser:
            parses = await parser.parse([without_tables(text) for text in payload.texts])
            model = parser.model_id
        # In a thread: long texts take tens of milliseconds each.
        entities, found = await asyncio.to_thread(read, payload.texts, parses)
        return Output(entities=entities, relations=found, method=self.method, models=[model])

    async def post_swap_test(self) -> None:
        """Prove that the example's birthplace is found."""
        answer = await self.run(self.example, self.probe)
        said = {(answer.entities[r.subject].key, answer.entities[r.object].key) for r in answer.relations}
        if ("marie curie", "warsaw") not in said:
            raise Unavailable("the knowledge engine does not find the relation of its own example")


def read(texts: Sequence[str], parses: Sequence[ParsedText]) -> tuple[list[Entity], list[Relation]]:
    """Things and relations of parsed texts."""
    parses = [with_proper_nouns(parse) for parse in parses]
    things, by_text = gather(texts, parses)
    found = [
        relation
        for number, (text, parse) in enumerate(zip(texts, parses, strict=True))
        for relation in _relations(number, text, parse, by_text[number])
    ]
    return [_entity(thing) for thing in things], found


def _entity(thing: Named) -> Entity:
    return Entity(
        name=thing.name,
        key=thing.key,
        type=thing.type,  # type: ignore[arg-type]  # pydantic checks it
        aliases=thing.surfaces,
        mentions=[Mention(text=place.text, start=place.start, end=place.end) for place in thing.places],
    )


def _relations(number: int, text: str, parse: ParsedText, things: list[int | None]) -> list[Relation]:
    named = {index: thing for index, thing in enumerate(things) if thing is not None}
    found = []
    for relation in relations(parse, named):
        span = parse.sentences[relation.sentence]
        start, end = parse.tokens[span.first].start, parse.tokens[span.stop - 1].end
        found.append(
            Relation(
                subject=relation.subject,
                predicate=relation.predicate,
                object=relation.object,
                negated=relation.limits.negated,
                modal=relation.limits.modal,
                reported=relation.limits.reported,
                evidence=Evidence(text=number, start=start, end=end, sentence=text[start:end]),
            )
        )
    return found
