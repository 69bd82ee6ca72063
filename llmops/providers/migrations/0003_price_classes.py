from django.db import migrations, models

from llmops.base.append_only import StillAppendOnly


class Migration(migrations.Migration):
    dependencies = [
        ("providers", "0002_append_only"),
    ]

    operations = [
        StillAppendOnly("providers_price"),
        migrations.AlterField(
            model_name="price",
            name="token_class",
            field=models.CharField(
                choices=[
                    ("input", "Input"),
                    ("cached_input", "Cached input"),
                    ("cache_write", "Cache write"),
                    ("output", "Output"),
                    ("reasoning", "Reasoning"),
                    ("audio_input", "Audio input"),
                    ("audio_output", "Audio output"),
                    ("image_input", "Image input"),
                    ("image_output", "Image output"),
                    ("characters", "Characters of text spoken"),
                    ("seconds", "Seconds of audio heard"),
                    ("images", "Images made"),
                    ("batch_input", "Batch input"),
                    ("batch_output", "Batch output"),
                    ("input_flex", "Input, flex tier"),
                    ("cached_input_flex", "Cached input, flex tier"),
                    ("cache_write_flex", "Cache write, flex tier"),
                    ("output_flex", "Output, flex tier"),
                    ("reasoning_flex", "Reasoning, flex tier"),
                    ("input_priority", "Input, priority tier"),
                    ("cached_input_priority", "Cached input, priority tier"),
                    ("cache_write_priority", "Cache write, priority tier"),
                    ("output_priority", "Output, priority tier"),
                    ("reasoning_priority", "Reasoning, priority tier"),
                ],
                max_length=32,
            ),
        ),
        StillAppendOnly("providers_price"),
    ]
