"""What fails comes again: counted, and later each time."""

import asyncio

import penstock
from penstock import Retry


class Down(Exception):
    """The bank does not answer."""


async def charge(event: penstock.Event[dict[str, str]]) -> None:
    if event.value["id"] == "2" and event.attempts < 2:
        raise Down("no answer from the bank")


async def main() -> None:
    async with penstock.connect() as client:
        orders = client.stream("orders")
        await orders.append_many([{"id": number} for number in range(1, 4)])

        # The delay after the first failure is `first` seconds; it doubles up to `cap`.
        retry = Retry(first=0.2, cap=5.0, jitter=0.0)
        done = 0
        async with orders.group("billing", retry=retry) as group:
            async for event in group:
                try:
                    async with group.handling(event):  # an exception nacks, and goes on up
                        await charge(event)
                except Down as error:
                    print(f"{event.value['id']} failed {event.attempts + 1} times: {error}")
                    continue
                print(f"{event.value['id']} charged after {event.attempts} failures")
                done += 1
                if done == 3:
                    break

            # By hand: nack with a delay of your own. Others may take it when it is due.
            await orders.append({"id": 4})
            first = await group.receive(timeout=5.0)
            assert first is not None
            group.nack(first, delay=0.1, reason="not today")
            second = await group.receive(timeout=5.0)
            assert second is not None
            print(f"{second.value['id']} came again, attempts: {second.attempts}")
            group.ack(second)


asyncio.run(main())

# Prints:
#  | 1 charged after 0 failures
#  | 2 failed 1 times: no answer from the bank
#  | 3 charged after 0 failures
#  | 2 failed 2 times: no answer from the bank
#  | 2 charged after 2 failures
#  | 4 came again, attempts: 1
