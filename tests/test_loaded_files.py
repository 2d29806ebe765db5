"""What a worker says about the files that it has loaded, as the node takes it."""


def test_a_service_of_very_many_modules_gets_ready(node):
    names = [f"module_{'x' * 100}_{number}" for number in range(1500)]
    app = f"""
        for number in range({len(names)}):
            __import__("module_" + "x" * 100 + f"_{{number}}")

        def work(value):
            return "ready"
        """
    started = node(
        """
        stages: {work: {python: "app:work"}}
        routes: [{path: /, pipeline: work}]
        """,
        app=app,
        **dict.fromkeys(names, ""),
    )
    assert started.get("/").text == "ready"
