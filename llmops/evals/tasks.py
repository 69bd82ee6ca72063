from celery import shared_task

from llmops.evals import services


@shared_task(name="evals.remove_copied_texts")
def remove_copied_texts() -> int:
    return services.remove_copied_texts()
