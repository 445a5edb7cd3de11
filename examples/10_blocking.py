"""Without an event loop: for Flask, Django, Celery, scripts and threads."""

from concurrent.futures import ThreadPoolExecutor

import penstock


def application(client: penstock.BlockingClient, path: str) -> str:
    """A request handler as a web framework would call it, in some thread of its own."""
    position = client.stream("visits").append({"path": path})
    return f"202 {'-' in str(position)}"


def main() -> None:
    # One event loop in one thread; every call may come from any thread.
    with penstock.blocking() as client:
        with ThreadPoolExecutor(max_workers=4) as threads:
            answers = list(threads.map(lambda n: application(client, f"/page/{n}"), range(20)))
        print("answers:", set(answers), len(answers))

        visits = client.stream("visits")
        with visits.writer() as writer:
            for number in range(20, 30):
                writer.send({"path": f"/page/{number}"})

        with visits.group("statistics", until=penstock.END) as group:
            seen = set()
            for event in group:
                seen.add(event.value["path"])
                group.ack(event)
        print("counted:", len(seen))

        with visits.reader(start=penstock.NEWEST) as reader:
            print("nothing new:", reader.receive(timeout=0.1))


if __name__ == "__main__":
    main()

# Prints:
#  | answers: {'202 True'} 20
#  | counted: 30
#  | nothing new: None
