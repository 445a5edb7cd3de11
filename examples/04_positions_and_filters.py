"""Where to start, and which events one wants: `start` and `where`."""

import asyncio
import re
from datetime import UTC, datetime, timedelta

import penstock
from penstock import END, NEWEST, OLDEST, after, at


async def main() -> None:
    async with penstock.connect() as client:
        news = client.stream("news")

        async def show(what: str, **options: object) -> None:
            async with news.reader(until=END, **options) as reader:
                print(what, [event.value["text"] async for event in reader])

        topics = ["eu.de", "eu.fr", "us.ny", "eu.de"]
        places = [await news.append({"text": t}, topic=t) for t in topics]

        # after(…) excludes its position, at(…) includes its time.
        await show("oldest:", start=OLDEST)
        await show("after the second:", start=after(places[1]))
        await show("since a minute ago:", start=at(datetime.now(UTC) - timedelta(minutes=1)))

        # A topic, a glob, a compiled regular expression, or any predicate on the event.
        await show("topic:", start=OLDEST, where="eu.de")
        await show("glob:", start=OLDEST, where="eu.*")
        await show("regular expression:", start=OLDEST, where=re.compile(r"(eu\.fr|us\..+)"))
        await show("predicate:", start=OLDEST, where=lambda event: event.position > places[2])

        # NEWEST is anchored before the block begins: what is appended inside is seen.
        async with news.reader(start=NEWEST) as reader:
            await news.append({"text": "fresh"})
            event = await reader.receive(timeout=5.0)
            print("newest:", event.value["text"] if event else "nothing")


asyncio.run(main())

# Prints:
#  | oldest: ['eu.de', 'eu.fr', 'us.ny', 'eu.de']
#  | after the second: ['us.ny', 'eu.de']
#  | since a minute ago: ['eu.de', 'eu.fr', 'us.ny', 'eu.de']
#  | topic: ['eu.de', 'eu.de']
#  | glob: ['eu.de', 'eu.fr', 'eu.de']
#  | regular expression: ['eu.fr', 'us.ny']
#  | predicate: ['eu.de']
#  | newest: fresh
