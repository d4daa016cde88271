"""English words that benchmarks draw keys and lists from: a fixed list, and the vocabulary of Python's documentation.

RULER takes its words from the package `wonderwords`. These were written down for longspan, so that a sample's keys are
the same wherever it runs.
"""

from __future__ import annotations

import re
from functools import cache

ADJECTIVES = tuple(
    """able absent aged agile alert amber ancient angry arctic ardent autumn awake azure balmy bare barren basic bitter
    black bland blank bleak blind blond blue blunt bold brave brief bright brisk broad broken bronze brown bumpy busy
    calm candid careful casual cautious central charming cheap cheerful chief chilly civic civil classic clean clear
    clever close cloudy clumsy coarse coastal cold comic common compact complex cool copper coral cosmic cosy cotton
    crimson crisp crooked crowded crude cruel curious curly curved daily damp dark dear deep dense desert dim direct
    distant dizzy double drowsy dry dull dusty eager early earnest eastern easy edible elastic elder elegant empty
    endless equal even exact exotic expert faint fair famous fancy fast fertile festive fierce final fine firm fixed
    flat fluffy fluid foggy foreign formal frail free fresh friendly frosty frozen frugal full funny fuzzy general
    gentle giant gifted glad gleaming global gloomy glossy golden good graceful grand grateful gray great green grim
    happy hardy harsh hasty hazel hazy healthy heavy helpful hidden hollow honest huge humble humid hungry icy ideal
    idle indigo inner innocent iron ivory jolly joyful keen kind large late lavish lazy lean lemon light likely lilac
    lime limp little lively local lofty lonely long loose loud lovely loyal lucky lunar magenta magic major marble
    maroon mature mellow merry metal mighty mild minor misty modern modest moist muddy musical mute narrow native
    natural neat nervous new nimble noble noisy normal northern novel oaken odd old olive open orange ordinary outer
    oval pale past patient peaceful pearl perfect pink plain playful pleasant plum plush polar polite poor precious
    pretty prime private proper proud public pure purple quaint quick quiet rainy rapid rare raw ready real regal
    remote rich rigid ripe robust rosy rough round royal ruby rural rusty sad safe salty sandy scarlet secret sharp
    sheer shiny short shy silent silky silver simple sincere sleepy slender slim slow small smart smooth snowy sober
    social soft solar solemn solid sour southern spare sparse spicy square stable steady steep stern stiff still stony
    stormy strange strict strong sturdy subtle sudden sunny super sweet swift tall tame tan tart teal tender thick thin
    tidy timid tiny tired topaz tough tranquil trim tropical true twin urban useful usual vague valid vast velvet
    verdant violet vital vivid warm wary weary western wet white whole wide wild windy winter wise witty wooden woolen
    yearly yellow young zesty""".split()
)

NOUNS = tuple(
    """acorn actor airport album alley almond anchor ankle antler apple apron arch archer arena armor arrow artist
    atlas attic author avenue award badge badger bakery balcony ballad balloon bamboo banana bandit banker banner
    barber barge barley barrel basin basket battery beach beacon beaver bedroom beetle bell belt bench berry bicycle
    biscuit bishop blanket blossom boat bonfire book boot border bottle boulder bowl branch brass bread breeze brick
    bridge broom brother bucket buffalo builder bullet bus bush butcher butter button cabbage cabin cactus cake camel
    camera campus canal candle cannon canoe canvas canyon captain caravan carbon cargo carpet carrot cart castle cat
    cathedral cattle cave cedar cellar cello cement chair chalk chapel chapter chariot cheese chef cherry chess chest
    chicken chimney chisel church cider cinema circle circus citizen city clarinet clay cliff clinic cloak clock cloud
    clover coach coal coast coat cobbler coconut coffee coin collar college column comet compass concert cook cookie
    corner cottage cougar council county courier cousin cow crab cradle crane crater creek cricket crow crown crystal
    cube cup curtain cushion cyclone dairy dancer dawn deck deer delta dentist desk detour diamond diary dinner
    doctor dog dolphin donkey door dove dragon drama drawer dress driver drum duck duke dune eagle earth easel echo
    eclipse editor elbow elephant elevator elm emerald empire engine envelope essay estate evening fabric factory
    falcon farmer feather fence fern ferry fiddle field fig finger fire fish flag flame flower flute fog folder
    forest fork fort fossil fountain fox frame friar frog fruit furnace galaxy gallery game garage garden garlic gate
    gazelle geyser ghost ginger giraffe glacier glass globe glove goat gorge grain granite grape grass gravel guard
    guest guide guitar gull hall hammer hammock hamper harbor hare harp harvest hat hawk hazelnut hedge helmet herb
    heron hill hippo honey hook horizon horn horse hospital hostel hotel hound house hunter hut iceberg idol igloo
    inlet insect island jacket jaguar jar jelly jewel jigsaw journal judge jug juice jungle jury kayak kettle key
    king kitchen kite kitten knee knife knight knot lace ladder lady lagoon lake lamb lamp land lantern lasso laundry
    lawyer leaf leather ledge legend leopard letter lettuce lever library lighthouse lily lion lizard llama lobster
    lodge loom lumber machine magnet mailbox mammoth manor mansion mantle map maple market mask mason mast mattress
    mayor meadow medal melody melon menu mermaid meteor mill miner mirror mitten mobile monkey moon moose morning
    mosaic moss motel moth mountain mouse mural museum mushroom musician napkin necklace needle neighbor nest net
    night noodle north notebook novelist nurse nut oak oasis oatmeal ocean octopus office onion opal opera orbit
    orchard orchid organ ostrich otter oven owl oyster paddle page painter palace palm panda panel panther paper
    parade parcel park parrot parsley passage pasture path patio peach peacock peanut pear pebble pelican pen penguin
    pepper petal phone piano picnic picture pier pigeon pillow pilot pine pioneer pipe pirate pitcher planet plank
    plate plaza plow pocket poet pond pony poppy porch porter poster potato pottery prairie prince printer prism
    prison promise puddle pumpkin puppet puppy purse puzzle pyramid quarry queen quilt rabbit raccoon radar radio
    raft railway rain ranch ranger raven razor reef reindeer ribbon rice rider ring river road robin robot rocket roof
    room rooster root rope rose ruler saddle sailor salad salmon sand sandal satchel saucer sausage scale scarf school
    scooter sculptor seal season seed shadow shark sheep shelf shell shepherd sheriff ship shirt shoe shop shore
    shovel shrimp signal singer sister skate sketch skirt sled sleeve snail snake snow soap sock sofa soldier song
    soup spade sparrow spear spider spinach sponge spoon spring squirrel stable stadium stamp star statue steam stone
    stork storm stove stream street student sugar suitcase summer sunset surgeon swan sweater swing sword table tailor
    tavern teacher teapot telescope temple tent theater thimble thistle throne thunder ticket tiger timber toast
    tomato tooth torch tortoise tower town tractor trail train treasure tree trophy trumpet tulip tunnel turkey turnip
    turtle umbrella uncle valley vase vault village vine vineyard violin visitor volcano voyage wagon waiter wallet
    walnut walrus warden waterfall wave weaver wedding whale wheat wheel whisker whistle widow willow window wing
    wolf wood wool workshop wreath yacht yard zebra zipper""".split()
)

WORDS = tuple(sorted({*ADJECTIVES, *NOUNS}))


@cache
def vocabulary() -> tuple[str, ...]:
    """`WORDS` and, after them, the words in lower case (3 to 12 letters) of this Python's documentation: some 6 000.

    Which these are differs a little between versions of Python.
    """
    from longspan.evaluation.haystack import prose

    found = set(re.findall(r"(?<![\w.'*`-])[a-z]{3,12}(?![\w(=*`'-]|\.\w)", " ".join(prose(more=True))))
    return (*WORDS, *sorted(found - set(WORDS)))
